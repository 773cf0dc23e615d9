# Supplement: post-processing and improved ground truth, of table_1.sh's rows, and ResNet-50.
# Set DATA (KITTI's raw drives, as JPEG), OUT (folder of all runs) and SEED, then run any line in
# a shell. After a kill, the same line resumes. README.md lists the published errors.
#   export DATA=kitti_data OUT=~/tmp SEED=1

python evaluate_depth.py --eval_mono --post_process --data_path "$DATA" --load_weights_folder "$OUT"/M_$SEED/models/weights_19 --eval_out_dir "$OUT"/M_pp_$SEED
python evaluate_depth.py --eval_mono --post_process --data_path "$DATA" --load_weights_folder "$OUT"/M_1024x320_$SEED/models/weights_4 --eval_out_dir "$OUT"/M_1024x320_pp_$SEED
python evaluate_depth.py --eval_stereo --post_process --data_path "$DATA" --load_weights_folder "$OUT"/S_$SEED/models/weights_19 --eval_out_dir "$OUT"/S_pp_$SEED
python evaluate_depth.py --eval_stereo --post_process --data_path "$DATA" --load_weights_folder "$OUT"/S_1024x320_$SEED/models/weights_4 --eval_out_dir "$OUT"/S_1024x320_pp_$SEED
python evaluate_depth.py --eval_stereo --post_process --data_path "$DATA" --load_weights_folder "$OUT"/MS_$SEED/models/weights_19 --eval_out_dir "$OUT"/MS_pp_$SEED
python evaluate_depth.py --eval_stereo --post_process --data_path "$DATA" --load_weights_folder "$OUT"/MS_1024x320_$SEED/models/weights_4 --eval_out_dir "$OUT"/MS_1024x320_pp_$SEED
python evaluate_depth.py --eval_mono --eval_split eigen_benchmark --data_path "$DATA" --load_weights_folder "$OUT"/M_no_pt_$SEED/models/weights_19 --eval_out_dir "$OUT"/M_no_pt_improved_$SEED
python evaluate_depth.py --eval_mono --eval_split eigen_benchmark --data_path "$DATA" --load_weights_folder "$OUT"/M_$SEED/models/weights_19 --eval_out_dir "$OUT"/M_improved_$SEED
python evaluate_depth.py --eval_stereo --eval_split eigen_benchmark --data_path "$DATA" --load_weights_folder "$OUT"/S_no_pt_$SEED/models/weights_19 --eval_out_dir "$OUT"/S_no_pt_improved_$SEED
python evaluate_depth.py --eval_stereo --eval_split eigen_benchmark --data_path "$DATA" --load_weights_folder "$OUT"/S_$SEED/models/weights_19 --eval_out_dir "$OUT"/S_improved_$SEED
python evaluate_depth.py --eval_stereo --eval_split eigen_benchmark --data_path "$DATA" --load_weights_folder "$OUT"/MS_no_pt_$SEED/models/weights_19 --eval_out_dir "$OUT"/MS_no_pt_improved_$SEED
python evaluate_depth.py --eval_stereo --eval_split eigen_benchmark --data_path "$DATA" --load_weights_folder "$OUT"/MS_$SEED/models/weights_19 --eval_out_dir "$OUT"/MS_improved_$SEED
python train.py --num_layers 50 --data_path "$DATA" --log_dir "$OUT" --model_name resnet50_$SEED --seed $SEED --resume auto && python evaluate_depth.py --eval_mono --data_path "$DATA" --load_weights_folder "$OUT"/resnet50_$SEED/models/weights_19 --eval_out_dir "$OUT"/resnet50_$SEED
python train.py --num_layers 50 --weights_init scratch --data_path "$DATA" --log_dir "$OUT" --model_name resnet50_no_pt_$SEED --seed $SEED --resume auto && python evaluate_depth.py --eval_mono --data_path "$DATA" --load_weights_folder "$OUT"/resnet50_no_pt_$SEED/models/weights_19 --eval_out_dir "$OUT"/resnet50_no_pt_$SEED
